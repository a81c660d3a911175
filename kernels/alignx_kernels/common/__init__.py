"""What all operators share: validation, the choice of implementation, launch settings, private APIs."""
