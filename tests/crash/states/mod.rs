//! Every disk that a power cut can leave.
