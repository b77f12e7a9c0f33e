"""What is told: records, their words, their formats, where they go, and the last of them kept for who asks."""
