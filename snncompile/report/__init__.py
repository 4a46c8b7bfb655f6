"""What people read: tables and reports made from records and JSON, never from a run."""
