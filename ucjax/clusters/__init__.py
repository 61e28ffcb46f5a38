"""k-means of features that are spread over the devices."""
