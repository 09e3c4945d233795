"""What is known of the platform. The rest of the agent imports `provider` and names no platform."""

from agent.providers import vast as provider

__all__ = ["provider"]
