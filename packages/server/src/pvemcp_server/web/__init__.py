"""The admin site: pages and REST API over the operations of admin/."""
