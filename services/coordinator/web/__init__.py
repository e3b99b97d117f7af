"""REST, and the explorer: the API's other faces, served by the coordinator's own process."""
