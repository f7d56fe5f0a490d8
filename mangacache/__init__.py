"""The sessions of a very large chatbot: durable and ordered in DynamoDB, coherent in Redis, fast in the process."""
