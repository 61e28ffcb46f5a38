"""The paper's tables, one file each; docs/paper.md says which is which and what was run."""
