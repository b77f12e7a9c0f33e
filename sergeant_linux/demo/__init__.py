"""A pool to watch: `python3 -m sergeant_linux.demo`. Its worker, hash_worker.py, is also the one to copy and change."""
