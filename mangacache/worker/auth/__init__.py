"""Who may: credentials, and the gate that every request passes."""
