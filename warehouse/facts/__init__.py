"""Facts: SELECTs over the warehouse's views that answers cite beside documents."""
