"""Pure limits and queues: may this request start now, wait, or must it be shed."""
