"""What the API and the workers have in common; it imports neither, and never scikit-learn."""
