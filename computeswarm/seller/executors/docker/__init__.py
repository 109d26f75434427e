"""Jobs in containers of Docker's engine."""

from computeswarm.seller.executors.docker.executor import DockerExecutor

__all__ = ["DockerExecutor"]
