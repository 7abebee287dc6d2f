//! The untrusted part: relays to the enclave, stores sealed bytes, serves sites.
