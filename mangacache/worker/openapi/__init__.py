"""OpenAPI: the document of the routes, made of what they say about themselves."""
