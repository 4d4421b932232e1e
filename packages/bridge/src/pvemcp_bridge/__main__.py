"""`python -m pvemcp_bridge`, and where the frozen binary starts."""

from pvemcp_bridge.main import main

if __name__ == "__main__":
    main()
