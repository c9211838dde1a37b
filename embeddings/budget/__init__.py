"""A budget of model requests that all processes of a pipeline share: requests and tokens a minute, dollars a day."""
