"""Pictures in, pictures out: placement, fidelity, manifest, writer, verification."""
