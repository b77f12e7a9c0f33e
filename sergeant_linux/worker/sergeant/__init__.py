"""What is done for a worker of sergeant's: its tasks are counted, and a stop reaches it at a safe point."""
