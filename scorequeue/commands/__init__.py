"""The commands of the command line, a module for each noun; `scorequeue.cli` puts them together."""
