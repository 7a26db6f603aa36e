"""Takes pictures of every page: the dashboard's, the reports', the documentation's."""
