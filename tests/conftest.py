pytest_plugins = ["tests.servers", "tests.weaviate_server"]
