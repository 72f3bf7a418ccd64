"""What there is: trained runs with what they are worth and weigh, competitions with what their records say."""
