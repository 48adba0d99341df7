"""One controller process: kopf wiring, the queue of due policies, and one reconcile for all of them."""
