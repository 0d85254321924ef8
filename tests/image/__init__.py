"""The Dockerfile without a container engine: its steps in folders made by debootstrap, and the service that it starts.

Not shown by this: the base image itself (Debian's own packages and a copied Python stand in for it), layers and their
cache, the platform's isolation, and how often an engine runs HEALTHCHECK; its command is run once.
"""
