"""The real hosts of assistants: run by `make hosts`, which installs them in a folder of their own."""
