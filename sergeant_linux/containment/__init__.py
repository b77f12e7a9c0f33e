"""What holds a life together (protocol.py): a leaf of cgroup v2, or a search by marks; and the choice between them."""
