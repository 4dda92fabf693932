"""What operators reach over HTTP. All of it is off until it is asked for, and none of it is open."""
