"""What the library asks of, and adds to, Lightning's Trainer."""
