//! launchd: jobs as property lists.
