//! A disk that hangs on command.
