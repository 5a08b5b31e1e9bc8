"""Who is asking: bearer token -> project (tenant). `keys` is pure; `middleware` puts the project on each request."""
