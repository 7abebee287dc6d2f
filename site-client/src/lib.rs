//! The site client: verify, approve, submit, commit, fetch, and an unattended agent.
