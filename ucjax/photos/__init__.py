"""What an owner of photographs asks for."""
