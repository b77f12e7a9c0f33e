"""What holds a life together: a leaf of cgroup v2, or a search by marks; and the choice between them."""
