"""What is drawn of data and models: pages and figures that need nothing beside themselves."""
