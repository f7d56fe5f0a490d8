"""DAX on this machine: a server that the real client talks to, in front of any DynamoDB."""
