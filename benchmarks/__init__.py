"""The service beside what people build without it: plain Flask and Celery for rows, a pandas script for files."""
