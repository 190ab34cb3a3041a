//! Events between services: the bus, consumer loop, outbox dispatcher, spool and its delivery.
