"""HTTP: gate, credentials, hosts, CORS, connections, exchanges and the server."""
