"""The embedded chain: py-evm's virtual machine driven directly, behind JSON-RPC, in a process of
its own so that nobody else's event loop waits for the interpreter.

Nothing here is imported outside that process (py-evm takes 0.5 s).
"""
