"""A web service worth profiling, a load for it, and a demo that shows the profiles arriving in S3."""
