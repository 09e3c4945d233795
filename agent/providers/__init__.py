"""What each platform's API says, one module per platform; pure functions over its answers."""
