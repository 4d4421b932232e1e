"""Entry point of `python -m pvemcp_bridge` and of the frozen binary."""

from pvemcp_bridge.main import main

if __name__ == "__main__":
    main()
