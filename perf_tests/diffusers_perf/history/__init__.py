"""Every run kept, and what changed between them: store, change points, causes, page. No torch."""
