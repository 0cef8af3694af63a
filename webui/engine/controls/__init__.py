"""What a picture is drawn after besides words."""
