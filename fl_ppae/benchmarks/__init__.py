"""What fl-ppae costs in time and memory, each measurement beside what it is compared with."""
