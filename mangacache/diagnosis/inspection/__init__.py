"""What each tier holds of one session, side by side: `mangacache inspect`."""
