"""What the API and the workers have in common; it imports neither, and never scikit-learn."""

#: Of the service; that of the installed distribution, which a container does not have.
VERSION = "0.1.0"
