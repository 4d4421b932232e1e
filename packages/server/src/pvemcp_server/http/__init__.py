"""HTTP: credentials, hosts, CORS, the exchange and the server."""
