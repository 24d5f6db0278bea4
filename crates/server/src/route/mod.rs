//! Host and path to the route that answers. Pure.
